-- The last three console lines of every run that failed or crashed.
SELECT c.entity, c.project, c.run_id, c.line, c.level, c.text
FROM console AS c
JOIN runs AS r ON r.entity = c.entity AND r.project = c.project AND r.run_id = c.run_id
WHERE r.state IN ('failed', 'crashed') AND r.deleted_at IS NULL
QUALIFY row_number() OVER (PARTITION BY c.entity, c.project, c.run_id ORDER BY c.line DESC) <= 3
ORDER BY c.entity, c.project, c.run_id, c.line;
