-- The key of the x axis that define_metric gave a key, unless it is the step. A definition of the key itself wins over
-- patterns, and a longer pattern over a shorter one. W&B's own keys, which begin with `_`, match no pattern.
CREATE OR REPLACE VIEW store.history_axes AS
SELECT entity, project, run_id, key, x_key
FROM (
    SELECT k.entity, k.project, k.run_id, k.key,
           arg_max(coalesce(d.x_key, '_step'), CASE WHEN d.pattern THEN length(d.key) ELSE 1000000000 END) AS x_key
    FROM main.history_keys AS k
    JOIN main.metric_definitions AS d
    ON d.entity = k.entity AND d.project = k.project AND d.run_id = k.run_id
    AND CASE WHEN d.pattern THEN NOT starts_with(k.key, '_') AND starts_with(k.key, rtrim(d.key, '*'))
             ELSE d.key = k.key END
    GROUP BY k.entity, k.project, k.run_id, k.key
)
WHERE x_key <> '_step';
