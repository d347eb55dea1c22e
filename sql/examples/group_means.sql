-- Mean and standard deviation of the last loss, by optimizer, over all seeds.
SELECT c.entity, c.project, c.value AS optimizer, count(*) AS runs, avg(k.last) AS mean_loss, stddev_samp(k.last) AS spread
FROM config_values AS c
JOIN history_keys AS k ON k.entity = c.entity AND k.project = c.project AND k.run_id = c.run_id AND k.key = 'loss'
WHERE c.key = 'optimizer' AND isfinite(k.last)
GROUP BY c.entity, c.project, c.value
ORDER BY mean_loss;
