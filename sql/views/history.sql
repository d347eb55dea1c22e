-- The newest values. Once there are Parquet segments, mirror/store/views.py adds them to this view, listed by path.
CREATE OR REPLACE VIEW main.history AS
SELECT entity, project, run_id, step, key, value, text
FROM store.history_tail;
