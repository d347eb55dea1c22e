-- How many of the runs on each machine failed or crashed, the worst machine first.
SELECT host, count(*) AS runs, count(*) FILTER (WHERE state IN ('failed', 'crashed')) AS failures,
    round(100.0 * failures / count(*), 1)::DOUBLE AS percent, max(created_at) FILTER (WHERE state IN ('failed', 'crashed')) AS last_failure
FROM runs
WHERE host IS NOT NULL AND state <> 'running' AND deleted_at IS NULL
GROUP BY host
ORDER BY percent DESC, host;
