"""Reads a lake with a cluster of Sail through Spark Connect, and prints the answers to SQL questions as JSON.

The number of workers comes from the environment. Usage: python sail_reads_lake.py LAKE < questions.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pysail.spark import SparkConnectServer
from pyspark.sql import SparkSession

lake = Path(sys.argv[1])
server = SparkConnectServer("127.0.0.1", 0)
server.start(background=True)
_, port = server.listening_address
spark = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
snapshot = json.loads((lake / "_snapshot.json").read_text(encoding="utf-8"))
for relation, reported in snapshot["tables"].items():
    table = spark.read.format("delta").option("versionAsOf", reported["version"]).load(str(lake / relation))
    table.createOrReplaceTempView(relation)
answers = {
    name: [list(row) for row in spark.sql(question).collect()] for name, question in json.load(sys.stdin).items()
}
print(json.dumps(answers, default=str))
spark.stop()
server.stop()
