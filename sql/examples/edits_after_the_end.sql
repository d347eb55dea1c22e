-- Config and summary values that were edited after the run had been mirrored.
SELECT c.entity, c.project, c.run_id, r.name, c.seen_at, c.field, c.old, c.new
FROM run_changes AS c
JOIN runs AS r ON r.entity = c.entity AND r.project = c.project AND r.run_id = c.run_id
WHERE r.deleted_at IS NULL AND (c.field LIKE 'config.%' OR c.field LIKE 'summary.%')
ORDER BY c.seen_at DESC, c.run_id, c.field;
