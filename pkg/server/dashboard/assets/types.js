// The shapes of the REST API, as far as the page reads them. /openapi.json is
// their source.

/**
 * @typedef {object} Resource
 * @property {number} allocatable millicores or bytes
 * @property {number} requested
 * @property {number | null} used null without a measurement
 * @property {number} reclaimable
 *
 * @typedef {object} Extended
 * @property {number} allocatable
 * @property {number} requested
 * @property {number} reclaimable
 *
 * @typedef {object} Node
 * @property {string} name
 * @property {boolean} ready
 * @property {boolean} schedulable
 * @property {string} skipped why; "" where the loop may touch it
 * @property {boolean} overutilized
 * @property {number} pods
 * @property {Resource} cpu
 * @property {Resource} memory
 * @property {Record<string, Extended>} extended
 * @property {string | null} measured_at
 *
 * @typedef {{source: string, items: Node[]}} Nodes
 */

/**
 * @typedef {'Pending'|'Preparing'|'Placing'|'HandingOver'|'Succeeded'|'Failed'|'Cancelled'} Phase
 *
 * @typedef {object} Resources
 * @property {Record<string, string>} [requests]
 * @property {Record<string, string>} [usage]
 * @property {string} [source]
 * @property {string} [measured_at]
 *
 * @typedef {object} Container
 * @property {string} name
 * @property {string} kind
 * @property {string} state
 * @property {boolean} should_migrate
 * @property {string} reason
 * @property {string} [message]
 *
 * @typedef {object} PhaseTime
 * @property {Phase} phase
 * @property {string} started_at
 * @property {string} [ended_at]
 * @property {number} [seconds]
 *
 * @typedef {object} Migration
 * @property {string} id
 * @property {string} name
 * @property {string} namespace
 * @property {string} pod_name
 * @property {string} [source_node]
 * @property {string} [target_node]
 * @property {Phase} phase
 * @property {string} [reason]
 * @property {string} [message]
 * @property {string} created_at
 * @property {string} [started_at]
 * @property {string} [finished_at]
 * @property {boolean} queued
 * @property {boolean} cancel_requested
 * @property {string} [new_pod]
 * @property {string} [new_node]
 * @property {string} [checkpoint_claim]
 * @property {{order: string, method: string, reason?: string}} [handover]
 * @property {number} [downtime_seconds]
 * @property {number} [copied_bytes]
 * @property {Container[]} [containers]
 * @property {Resources} [original_resources]
 * @property {Resources} [optimized_resources]
 * @property {PhaseTime[]} [phase_times]
 * @property {string} [requested_by]
 *
 * @typedef {{items: Migration[], continue?: string, remaining?: number}} MigrationList
 */

/**
 * @typedef {{cpu: number, memory: number, extended: Record<string, number>}} Amounts millicores and bytes
 *
 * @typedef {object} Move
 * @property {string} namespace
 * @property {string} pod_name
 * @property {string} pod_uid
 * @property {string} workload
 * @property {string} source_node
 * @property {string} target_node
 * @property {number} gain
 * @property {number} cost
 * @property {number[]} after
 * @property {Amounts} usage
 * @property {Amounts} freed_requests
 * @property {string} reason
 *
 * @typedef {object} Prediction
 * @property {number} objective
 * @property {number} cpu_deviation
 * @property {number} memory_deviation
 * @property {number} fragmentation
 *
 * @typedef {object} Status
 * @property {string} time
 * @property {boolean} dry_run
 * @property {string} source
 * @property {Prediction} before
 * @property {Prediction} after
 * @property {Move[]} moves
 * @property {number | null} expected_downtime_seconds
 * @property {string} [held]
 * @property {string} [trimmed]
 * @property {{name: string, reasons: string[]}[]} still_overutilized
 * @property {{name: string, reason: string}[]} skipped
 * @property {{name: string, cycles: number}[]} overutilized
 * @property {{state: string, failed: number, finished: number, until?: string}} circuit_breaker
 * @property {{workload: string, migrations: number, until: string}[]} cooldowns
 *
 * @typedef {{paused: boolean, reason?: string, by?: string, since?: string}} Pause
 * @typedef {{status: Status | null, paused: Pause, age_seconds: number | null}} Plan
 */

/**
 * @typedef {{value: number | null, n: number}} Figure
 *
 * @typedef {object} Figures
 * @property {{total: number, succeeded: number, failed: number, cancelled: number, running: number, queued: number}} migrations
 * @property {Figure} success_percent
 * @property {Figure} average_duration_seconds
 * @property {Figure} average_downtime_seconds
 * @property {Figure} cpu_request_savings_percent
 * @property {Figure} memory_request_savings_percent
 * @property {Figure} cpu_usage_savings_percent
 * @property {Figure} memory_usage_savings_percent
 */

export {};
