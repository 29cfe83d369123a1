"""What benchmarks share: paired timing, their processes, load generators and reports.

What is measured is one package up. Begin with `paired_timing`.
"""
