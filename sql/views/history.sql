-- The newest values and all Parquet segments, which mirror/store/views.py lists by path.
CREATE OR REPLACE VIEW main.history AS
SELECT entity, project, run_id, step, key, value, text, entity || '/' || project || '/' || run_id AS run_path
FROM (
    SELECT r.entity, r.project, r.run_id, t.step, t.key, t.value, t.text
    FROM store.history_tail AS t
    JOIN store.run_records AS r ON r.rid = t.rid
    {segments}
);
