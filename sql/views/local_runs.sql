-- Runs that are mirrored from local files, because the server does not have them or has less of their history.
CREATE OR REPLACE VIEW main.local_runs AS
SELECT
    r.entity, r.project, r.run_id, r.storage_id <> '' AS on_server,
    f.path, f.size, f.read_to, f.damaged, f.read_at,
    r.entity || '/' || r.project || '/' || r.run_id AS run_path
FROM store.local_states AS l
JOIN store.run_records AS r ON r.rid = l.rid
JOIN store.local_files AS f ON f.entity = r.entity AND f.project = r.project AND f.run_id = r.run_id
WHERE f.note IS NULL;
