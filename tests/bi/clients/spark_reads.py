"""Reads a lake with Spark by its manifest, and prints the answers to SQL questions as JSON.

Usage: python spark_reads.py LAKE < questions.json
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from pyspark.sql import SparkSession

lake = Path(sys.argv[1])
spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.sql.shuffle.partitions", "1")
    # A project called 007 is not the number 7.
    .config("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    .getOrCreate()
)
manifest = json.loads((lake / "manifest.json").read_text(encoding="utf-8"))
for relation, told in manifest["relations"].items():
    files = [str(lake / file["path"]) for file in told["files"]]
    frame = spark.read.option("basePath", str(lake / relation)).parquet(*files)
    frame.select(*told["columns"]).createOrReplaceTempView(relation)
answers = {}
for name, question in json.load(sys.stdin).items():
    # Spark has no isfinite, and its // is div.
    spoken = re.sub(r"isfinite\(([\w.]+)\)", r"abs(\1) < double('inf')", question).replace(" // ", " div ")
    answers[name] = [list(row) for row in spark.sql(spoken.rstrip().rstrip(";")).collect()]
print(json.dumps(answers, default=str))
spark.stop()
