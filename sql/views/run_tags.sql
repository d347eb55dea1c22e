CREATE OR REPLACE VIEW main.run_tags AS
SELECT r.entity, r.project, r.run_id, t.tag
FROM store.run_tags AS t
JOIN store.runs AS r ON r.rid = t.rid;
