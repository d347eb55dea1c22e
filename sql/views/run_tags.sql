CREATE OR REPLACE VIEW main.run_tags AS
SELECT r.entity, r.project, r.run_id, t.tag, t.position,
       r.entity || '/' || r.project || '/' || r.run_id AS run_path
FROM store.tag_positions AS t
JOIN store.run_records AS r ON r.rid = t.rid;
