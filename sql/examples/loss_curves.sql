-- The loss of every run, averaged over a hundred equal ranges of its steps; for line charts.
SELECT entity, project, run_id, min(step) AS step, avg(value) AS loss
FROM (
    SELECT h.entity, h.project, h.run_id, h.step, h.value, (h.step - k.first_step) * 100 // (k.last_step - k.first_step + 1) AS part
    FROM history AS h
    JOIN runs AS r ON r.entity = h.entity AND r.project = h.project AND r.run_id = h.run_id
    JOIN history_keys AS k ON k.entity = h.entity AND k.project = h.project AND k.run_id = h.run_id AND k.key = h.key
    WHERE h.key = 'loss' AND isfinite(h.value) AND r.deleted_at IS NULL
)
GROUP BY entity, project, run_id, part
ORDER BY entity, project, run_id, step;
