-- Mean and standard deviation of the last loss, by optimizer, over all seeds.
SELECT r.entity, r.project, c.value AS optimizer, count(*) AS runs, avg(k.last) AS mean_loss, stddev_samp(k.last) AS spread
FROM runs AS r
JOIN config_values AS c ON c.entity = r.entity AND c.project = r.project AND c.run_id = r.run_id AND c.key = 'optimizer.name'
JOIN history_keys AS k ON k.entity = r.entity AND k.project = r.project AND k.run_id = r.run_id AND k.key = 'loss'
WHERE r.deleted_at IS NULL AND isfinite(k.last)
GROUP BY r.entity, r.project, c.value
ORDER BY mean_loss, optimizer;
