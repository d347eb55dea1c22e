-- Pages of runs are on the app's host, as the official client has it; they were mirrored as if they were on the API's.
UPDATE store.runs
SET url = CASE
    WHEN regexp_matches(url, '^https://api\.(qa\.)?forge\.coreweave\.com/')
    THEN regexp_replace(url, '^https://api\.([a-z.]+)/', 'https://\1/wandb/')
    WHEN starts_with(url, 'https://api.qa.wandb.ai/')
    THEN replace(url, 'https://api.qa.wandb.ai/', 'https://qa.forge.coreweave.com/wandb/')
    WHEN contains(url, '://api.wandb.') AND NOT contains(url, '://api.wandb.test') THEN replace(url, '://api.', '://')
    ELSE replace(url, '://api.', '://app.')
END
WHERE contains(url, '://api.');
