-- The loss that runs reached, by the decade of their learning rate: -4 means from 1e-4 up to 1e-3.
SELECT r.entity, r.project, floor(log10(lr.number))::BIGINT AS decade, count(*) AS runs, min(k.min) AS best_loss, median(k.min) AS median_loss
FROM runs AS r
JOIN config_values AS lr ON lr.entity = r.entity AND lr.project = r.project AND lr.run_id = r.run_id AND lr.key = 'lr'
JOIN history_keys AS k ON k.entity = r.entity AND k.project = r.project AND k.run_id = r.run_id AND k.key = 'loss'
WHERE lr.number > 0 AND isfinite(k.min) AND r.deleted_at IS NULL
GROUP BY ALL
ORDER BY r.entity, r.project, decade;
