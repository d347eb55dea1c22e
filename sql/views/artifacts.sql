CREATE OR REPLACE VIEW main.artifacts AS
SELECT a.entity, a.project, a.type, a.collection, 'v' || a.version_number AS version, a.version_number, n.aliases,
       a.digest, a.size, a.file_count, a.state, a.created_at, a.updated_at, a.run_id, a.description, a.metadata,
       a.ttl_s, a.artifact_id, a.deleted_at,
       a.run_entity || '/' || a.run_project || '/' || a.run_id AS run_path
FROM store.artifact_records AS a
LEFT JOIN (
    SELECT aid, string_agg(alias, ',' ORDER BY position) AS aliases FROM store.artifact_aliases GROUP BY aid
) AS n ON n.aid = a.aid;
