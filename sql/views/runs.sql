CREATE OR REPLACE VIEW main.runs AS
SELECT
    entity, project, run_id, name, state, created_at, heartbeat_at, updated_at, duration_s, username, group_name,
    job_type, sweep, notes, tags, git_commit, host, config, summary, history_rows, url, deleted_at, synced_at, run_path
FROM store.run_rows;
