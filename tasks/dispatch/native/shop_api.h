/* The C interface of the batched job-shop simulator: part of gnnlab's CPU library.
 *
 * Conventions of gnnlab.h: an int status out, the sentence of a failure in gnnlab_last_error().
 * A shop is a batch of episodes ("rows"); each row plays one instance, many rows may share one.
 * Functions that take `rows` and `count` work on these rows in this order; rows NULL: row i is i.
 */
#ifndef GNNLAB_SHOP_API_H
#define GNNLAB_SHOP_API_H

#include <stdint.h>

#define GNNLAB_SHOP_JSSP 0
#define GNNLAB_SHOP_BWS 1
#define GNNLAB_SHOP_BNS 2

#define GNNLAB_SHOP_ELAPSED 0
#define GNNLAB_SHOP_WAITING 1
#define GNNLAB_SHOP_DELTA_LB 2

/* Bits of a row's flags. */
#define GNNLAB_SHOP_DONE 1
#define GNNLAB_SHOP_DEADLOCK 2
#define GNNLAB_SHOP_TRUNCATED 4

#define GNNLAB_SHOP_JOB_FEATURES 39
#define GNNLAB_SHOP_GLOBAL_FEATURES 24
#define GNNLAB_SHOP_GUIDE_FACTS 20
#define GNNLAB_SHOP_OP_FEATURES 16
#define GNNLAB_SHOP_MACHINE_FEATURES 8
#define GNNLAB_SHOP_EDGE_TYPES 8

/* Choices of a graph; with neither CLIQUE nor STAR it has cliques up to 30 jobs. */
#define GNNLAB_SHOP_GRAPH_KEEP_DONE 1
#define GNNLAB_SHOP_GRAPH_NO_MACHINES 2
#define GNNLAB_SHOP_GRAPH_CLIQUE 4
#define GNNLAB_SHOP_GRAPH_STAR 8
#define GNNLAB_SHOP_GRAPH_DELETE_DOWN 16
#define GNNLAB_SHOP_GRAPH_HIDE_REPAIR 32

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gnnlab_shop gnnlab_shop;

typedef struct gnnlab_shop_options {
  int32_t mode, restart, unload_when_down, allow_wait, focus, auto_trivial, reward, repair_known;
  int64_t max_steps; /* 0: 20 per operation and 1000 more */
} gnnlab_shop_options;

/* What one row plays. */
typedef struct gnnlab_shop_row {
  int64_t instance;
  int64_t wip_limit; /* 0: none */
  double scale;      /* of rewards; 0: the instance's LB0 */
  int32_t trace;     /* 0 none, 1 drawn, 2 given windows */
  int32_t duration;  /* 0 uniform, 1 fixed, 2 geometric */
  uint64_t seed;
  double prob;
  int64_t low, high;
  const int64_t* windows;      /* given: (W, 2), kept by the caller while the shop lives */
  const int64_t* starts;       /* given: (M + 1,) where each machine's windows begin */
  const int64_t* cut_after;    /* (J * L,) or NULL */
  const int64_t* cut_duration; /* (J * L,) or NULL */
} gnnlab_shop_row;

/* Sizes (I, 3): jobs, machines, longest job. The arrays hold the padded (J, L) blocks of the
 * instances one after the other; lengths their (J,) blocks. All is copied but windows and cuts. */
int gnnlab_shop_new(int64_t num_instances, const int64_t* sizes, const int64_t* machines,
                    const int64_t* times, const int64_t* lengths, int64_t num_rows,
                    const gnnlab_shop_row* rows, const gnnlab_shop_options* options,
                    gnnlab_shop** out);
int gnnlab_shop_free(gnnlab_shop* shop);

/* Puts rows back to time 0 and goes on to their first decision. */
int gnnlab_shop_reset(gnnlab_shop* shop, const int64_t* rows, int64_t count, int threads);

/* One decision per row, then on to the next: a job, or WAIT, which is the number of jobs of the row's
 * instance or the largest of the shop. reward (count,); rows that are over are left alone. */
int gnnlab_shop_step(gnnlab_shop* shop, const int64_t* rows, int64_t count, const int64_t* actions,
                     double* reward, uint8_t* flags, int threads);

/* Plays rows to their end by a weighted sum of priority rules (1 with weight 1: that rule).
 * seeds (count,): of RANDOM. due (NULL: 1.3 times the job's work). */
int gnnlab_shop_rules(gnnlab_shop* shop, const int64_t* rows, int64_t count, const int64_t* rules,
                      const double* weights, int64_t num_rules, const uint64_t* seeds, int threads);

/* Looks for a better schedule of each row by local search, and leaves the row at the best one's end.
 * start (count, J * L) int64 with J, L of the row's instance (all rows of one size): start times of a
 * schedule to begin from, or NULL: the best of a few rules. Simulated annealing over priorities of
 * operations; allow_wait lets machines wait for operations that are about to come. */
int gnnlab_shop_search(gnnlab_shop* shop, const int64_t* rows, int64_t count, const int64_t* start,
                       int64_t evaluations, const uint64_t* seeds, int threads);

/* The best episode that lookahead has seen of each row: a plan. Kept by the caller, who makes span
 * 2^60 when a row does something else than `next`. */
typedef struct gnnlab_shop_plans {
  int64_t cells;   /* columns of before, at least J * L of every instance */
  int64_t* span;   /* (rows,) makespan, 2^60 without a plan */
  int64_t* next;   /* (rows,) the action that the plan takes now */
  int32_t* before; /* (rows, cells) per operation the one before it on its machine, -1: the first */
} gnnlab_shop_plans;

/* What each legal action is worth: values (count, J + 1, num_rules + 2), -1 where not legal: makespans
 * when each rule finishes the episode, then mean and least makespan of `rollouts` episodes finished by
 * the rules in turn, which take any candidate with probability noise (0 rollouts: of the plain ones);
 * or, with the weights of a guide (GUIDE_FACTS,), by what it draws.
 * No shutdowns but those of now. With plans (NULL: none) of rows without shutdowns, the best episode is
 * kept, and counts among the least of its next action for as long as the row follows it. */
int gnnlab_shop_values(const gnnlab_shop* shop, const int64_t* rows, int64_t count, const int64_t* rules,
                       int64_t num_rules, double noise, int64_t rollouts, const uint64_t* seeds,
                       const gnnlab_shop_plans* plans, const double* guide, int64_t* values,
                       int threads);

/* What the guide looks at: out (count, J, GUIDE_FACTS), 0 for jobs that may not take the first open
 * machine now. */
int gnnlab_shop_guide(const gnnlab_shop* shop, const int64_t* rows, int64_t count, double* out,
                      int threads);

/* mask (count, J + 1): legal actions, the last is WAIT; J the largest of the shop. */
int gnnlab_shop_mask(const gnnlab_shop* shop, const int64_t* rows, int64_t count, uint8_t* mask);

/* Per row: time, makespan (-1 before the end), flags, steps, swaps, lower bound: (count, 6). */
int gnnlab_shop_state(const gnnlab_shop* shop, const int64_t* rows, int64_t count, int64_t* out);

/* out (J * L, 3) of the row's instance: start, end, depart; -1 where not known. */
int gnnlab_shop_schedule(const gnnlab_shop* shop, int64_t row, int64_t* out);

/* Copies a row's state; both must play instances of the same sizes and options. */
int gnnlab_shop_copy(gnnlab_shop* to, int64_t to_row, const gnnlab_shop* from, int64_t from_row);

/* What a policy over jobs sees: jobs (count, J, JOB_FEATURES), globals (count, GLOBAL_FEATURES),
 * mask (count, J + 1), op (count, J): place j * L + i of each job's next operation in the padded
 * block of its instance, -1 when it has none; machine (count, J): of that operation, -1. */
int gnnlab_shop_jobs(const gnnlab_shop* shop, const int64_t* rows, int64_t count, float* jobs,
                     float* globals, uint8_t* mask, int64_t* op, int64_t* machine, int threads);

/* Where the graphs of `count` rows are written, one after the other; N and M their nodes in all. */
typedef struct gnnlab_shop_graph_out {
  float *x_op, *x_machine;       /* (N, OP_FEATURES), (M, MACHINE_FEATURES) */
  int64_t *op_row, *machine_row; /* (N,), (M,): which of the rows a node belongs to, 0.. */
  int64_t *op_job, *op_machine;  /* (N,) */
  int64_t* op_twin;              /* (N,): first node of the same job and machine not started yet */
  int64_t *candidate, *time;     /* (count, J + 1): node of a job's next operation or -1; (count,) */
  uint8_t* mask;                 /* (count, J + 1) */
  int64_t* edges[GNNLAB_SHOP_EDGE_TYPES]; /* (2, E) of each type: pred, succ, disj, mach_next,
                                             block, block_rev, op_machine, machine_op */
} gnnlab_shop_graph_out;

/* Where the nodes and edges of each row begin: offsets (count + 1, 2 + EDGE_TYPES), columns
 * operations, machines, and each type of edges; the last row holds the totals. */
int gnnlab_shop_graph_sizes(const gnnlab_shop* shop, const int64_t* rows, int64_t count, int flags,
                            int64_t* offsets, int threads);

/* Writes the graphs, given these offsets. */
int gnnlab_shop_graph(const gnnlab_shop* shop, const int64_t* rows, int64_t count, int flags,
                      const int64_t* offsets, const gnnlab_shop_graph_out* out, int threads);

#ifdef __cplusplus
}
#endif
#endif
