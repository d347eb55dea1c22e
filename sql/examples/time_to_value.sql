-- How long each run took until its loss was first 0.5 or less: the step, and the seconds since its start.
SELECT h.entity, h.project, h.run_id, r.name, min(h.step) AS step, min(t.value) AS seconds
FROM history AS h JOIN runs AS r USING (entity, project, run_id)
JOIN history AS t ON t.entity = h.entity AND t.project = h.project AND t.run_id = h.run_id AND t.step = h.step AND t.key = '_runtime'
WHERE h.key = 'loss' AND h.value <= 0.5 AND r.deleted_at IS NULL
GROUP BY ALL
ORDER BY seconds, h.run_id;
