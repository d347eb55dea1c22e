CREATE OR REPLACE VIEW main.system_metrics AS
SELECT entity, project, run_id, step, key, value, text,
       entity || '/' || project || '/' || run_id AS run_path
FROM store.system_values;
