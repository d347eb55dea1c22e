CREATE OR REPLACE VIEW main.run_metadata AS
SELECT r.entity, r.project, r.run_id, l.key, l.text AS value, l.number, l.kind,
       r.entity || '/' || r.project || '/' || r.run_id AS run_path
FROM store.metadata_leaves AS l
JOIN store.run_records AS r ON r.rid = l.rid;
