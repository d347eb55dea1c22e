-- The mean of the loss over the last tenth of each run's steps, by optimizer: each run counts once, however long it is.
SELECT entity, project, optimizer, count(*) AS runs, avg(loss) AS mean_loss
FROM (SELECT h.entity, h.project, h.run_id, c.value AS optimizer, avg(h.value) AS loss FROM history AS h
    JOIN (FROM runs WHERE deleted_at IS NULL) USING (entity, project, run_id) JOIN config_values AS c USING (entity, project, run_id)
    JOIN history_keys AS k ON k.entity = h.entity AND k.project = h.project AND k.run_id = h.run_id AND k.key = h.key
    WHERE h.key = 'loss' AND c.key = 'optimizer.name' AND isfinite(h.value)
        AND h.step > k.last_step - (k.last_step - k.first_step + 1) / 10 GROUP BY ALL)
GROUP BY ALL ORDER BY entity, project, mean_loss;
