"""From intent to fill: order desk, reconciliation, trade log, paper venue."""
