-- The newest values. Once there are Parquet segments, mirror/store/views.py adds them to this view, listed by path.
CREATE OR REPLACE VIEW main.history AS
SELECT r.entity, r.project, r.run_id, t.step, t.key, t.value, t.text
FROM store.history_tail AS t
JOIN store.runs AS r ON r.rid = t.rid;
