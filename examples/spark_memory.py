"""A memory built by the executors of a Spark cluster.

    spark-submit --conf spark.task.cpus=8 --conf spark.executor.cores=8 examples/spark_memory.py \\
        '/data/{00000..00099}.tar' /shared/memory --threads 8

The sources, the memory's folder and the model are in storage that all machines see under the same names. Run again,
it goes on where it stopped.
"""

import argparse

from pyspark.sql import SparkSession

import xmore.spark

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("sources", nargs="+", help="folders, tables, tars; braces and globs are expanded")
parser.add_argument("memory", help="folder of the new memory")
parser.add_argument("--model", default="lite")
parser.add_argument("--parts", type=int, default=8)
parser.add_argument("--threads", type=int, default=1, help="those of a part; what spark.task.cpus is")
arguments = parser.parse_args()

spark = SparkSession.builder.appName("xmore").getOrCreate()
print(
    xmore.spark.build_memory(
        spark,
        arguments.sources,
        arguments.memory,
        model=arguments.model,
        parts=arguments.parts,
        threads=arguments.threads,
    )
)
