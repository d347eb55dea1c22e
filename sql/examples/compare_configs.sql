-- The config values in which the last two finished runs of each project differ; name two runs in `pair` instead.
WITH pair AS (SELECT entity, project, run_id, row_number() OVER (PARTITION BY entity, project ORDER BY created_at DESC, run_id) AS place
    FROM runs WHERE state = 'finished' AND deleted_at IS NULL QUALIFY place <= 2)
SELECT p.entity, p.project, c.key, max(c.value) FILTER (WHERE p.place = 2) AS earlier, max(c.value) FILTER (WHERE p.place = 1) AS later
FROM pair AS p JOIN config_values AS c USING (entity, project, run_id)
WHERE c.kind NOT IN ('object', 'list')
GROUP BY p.entity, p.project, c.key HAVING earlier IS DISTINCT FROM later
ORDER BY p.entity, p.project, c.key;
