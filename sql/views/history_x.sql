-- Every number with its place on the x axis that define_metric gave its key: the last finite value of `x_key` at or before
-- the step, null before the first one. A definition of the key itself goes before patterns, a longer pattern before a
-- shorter one. Without a definition x is the step.
-- The window is partitioned by run and key so that conditions on these reach the history itself.
CREATE OR REPLACE VIEW main.history_x AS
WITH axes AS (
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
    WHERE x_key <> '_step'
), placed AS (
    SELECT entity, project, run_id, key, x_key, step, value,
           last_value(x IGNORE NULLS) OVER (
               PARTITION BY entity, project, run_id, key ORDER BY step, x IS NULL
               ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
           ) AS x
    FROM (
        SELECT h.entity, h.project, h.run_id, h.key, a.x_key, h.step, h.value, CAST(NULL AS DOUBLE) AS x
        FROM main.history AS h
        JOIN axes AS a ON a.entity = h.entity AND a.project = h.project AND a.run_id = h.run_id AND a.key = h.key
        WHERE h.value IS NOT NULL
        UNION ALL
        SELECT h.entity, h.project, h.run_id, a.key, a.x_key, h.step, NULL, h.value
        FROM main.history AS h
        JOIN axes AS a ON a.entity = h.entity AND a.project = h.project AND a.run_id = h.run_id AND a.x_key = h.key
        WHERE isfinite(h.value)
    )
)
SELECT h.entity, h.project, h.run_id, h.key, '_step' AS x_key, CAST(h.step AS DOUBLE) AS x, h.step, h.value
FROM main.history AS h
LEFT JOIN axes AS a ON a.entity = h.entity AND a.project = h.project AND a.run_id = h.run_id AND a.key = h.key
WHERE h.value IS NOT NULL AND a.x_key IS NULL
UNION ALL
SELECT entity, project, run_id, key, x_key, x, step, value
FROM placed
WHERE value IS NOT NULL;
