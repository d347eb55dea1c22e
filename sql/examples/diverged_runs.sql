-- Runs whose loss became NaN or infinite, or ended above where it started, with the step of the first such value.
SELECT h.entity, h.project, h.run_id, r.name, r.state, min(h.step) FILTER (WHERE NOT isfinite(h.value)) AS first_bad_step,
    arg_min(h.value, h.step) AS first_loss, arg_max(h.value, h.step) AS last_loss
FROM history AS h JOIN runs AS r USING (entity, project, run_id)
WHERE h.key = 'loss' AND r.deleted_at IS NULL
GROUP BY ALL
HAVING first_bad_step IS NOT NULL OR last_loss > first_loss
ORDER BY h.entity, h.project, h.run_id;
