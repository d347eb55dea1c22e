-- The run of each sweep with the lowest loss that it reached.
SELECT r.entity, r.project, r.sweep, arg_min(r.run_id, k.min) AS run_id, arg_min(r.name, k.min) AS name,
    min(k.min) AS best_loss, count(*) AS runs
FROM runs AS r
JOIN history_keys AS k ON k.entity = r.entity AND k.project = r.project AND k.run_id = r.run_id AND k.key = 'loss'
WHERE r.sweep IS NOT NULL AND r.deleted_at IS NULL AND isfinite(k.min)
GROUP BY r.entity, r.project, r.sweep
ORDER BY r.entity, r.project, r.sweep;
