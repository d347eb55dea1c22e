CREATE OR REPLACE VIEW main.run_changes AS
SELECT entity, project, run_id, seen_at, field, old, new
FROM store.run_changes;
