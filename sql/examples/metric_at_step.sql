-- The loss of each run at step 50, or the last one before it.
SELECT h.entity, h.project, h.run_id, r.name, max(h.step) AS step, arg_max(h.value, h.step) AS loss
FROM history AS h JOIN runs AS r USING (entity, project, run_id)
WHERE h.key = 'loss' AND h.step <= 50 AND isfinite(h.value) AND r.deleted_at IS NULL
GROUP BY ALL
ORDER BY loss, h.run_id;
