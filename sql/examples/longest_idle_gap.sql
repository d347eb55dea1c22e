-- The longest time in each run in which nothing was logged, and the step after it; the longest of all first.
SELECT entity, project, run_id, name, max(gap) AS seconds, arg_max(step, gap) AS step
FROM (SELECT h.entity, h.project, h.run_id, r.name, h.step,
        h.value - lag(h.value) OVER (PARTITION BY h.entity, h.project, h.run_id ORDER BY h.step) AS gap
    FROM history AS h JOIN runs AS r USING (entity, project, run_id) WHERE h.key = '_timestamp' AND r.deleted_at IS NULL)
WHERE gap IS NOT NULL
GROUP BY ALL
ORDER BY seconds DESC, run_id;
