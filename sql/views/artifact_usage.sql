CREATE OR REPLACE VIEW main.artifact_usage AS
SELECT r.entity, r.project, r.run_id, u.artifact_entity, u.artifact_project, u.collection,
       'v' || u.version_number AS version, u.relation,
       r.entity || '/' || r.project || '/' || r.run_id AS run_path
FROM store.artifact_uses AS u
JOIN store.run_records AS r ON r.rid = u.rid;
