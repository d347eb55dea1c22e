-- The columns shared by `runs` and the wide relations.
CREATE OR REPLACE VIEW store.run_rows AS
SELECT
    r.rid, r.entity, r.project, r.run_id, r.name, r.state, r.created_at, r.heartbeat_at, r.updated_at, r.duration_s,
    r.username, r.group_name, r.job_type, r.sweep, r.notes, r.tags, r.git_commit, r.host, r.config, r.summary,
    coalesce(h.rows, 0) AS history_rows, r.url, r.deleted_at, r.synced_at,
    r.entity || '/' || r.project || '/' || r.run_id AS run_path
FROM store.run_records AS r
LEFT JOIN store.run_history AS h ON h.rid = r.rid;
