-- min and max are over finite values; last is the last number, which may be at an earlier step than last_step.
CREATE OR REPLACE VIEW main.history_keys AS
SELECT r.entity, r.project, r.run_id, k.key, k.rows, k.first_step, k.last_step, k.min, k.max, k.last,
       r.entity || '/' || r.project || '/' || r.run_id AS run_path
FROM store.run_keys AS k
JOIN store.run_records AS r ON r.rid = k.rid;
