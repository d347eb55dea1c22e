CREATE OR REPLACE VIEW main.system_metrics AS
SELECT entity, project, run_id, step, key, value, text
FROM store.system_metrics;
