/*
 * Inside of processes/: what its files share. Rows need ctl.h alone.
 *
 * A process here is an id with what this mount knows of it: settings made before its start, and that it was started here. What it
 * does is asked of the sandbox each time. The set's lock covers the list and all fields but the id; it is not held over a request.
 */
#ifndef CTL_PROCESSES_H
#define CTL_PROCESSES_H

#include "ctl.h"
#include "process.h"

struct json_object;
struct process_set;
struct process_follow;

struct process {
	struct process *next;
	struct process_set *set; /* a reference */
	unsigned refs;
	char *id;

	bool pinned;       /* the set holds a reference: a draft, or started here */
	bool draft;        /* made here, never started */
	bool starting;     /* somebody starts it now */
	bool started_here; /* then boot and target tell in which life of the sandbox */
	char boot[40];
	const struct http_target *target; /* never followed */
	bool end_told;                    /* caches were dropped after its end */
	struct fault
		start_fault; /* why the last start failed; a shell does not show it: echo drops what close says */

	bool has_settings;       /* the five below are what the next start uses */
	char *command;           /* may be NULL */
	char *cwd;               /* NULL: /workspace */
	struct json_object *env; /* NULL: none */
	int64_t timeout_ms;      /* 0: none */
	char *session;           /* NULL: of none */

	struct process_follow *followers; /* while it is starting */
};

struct process_set {
	pthread_mutex_t lock;
	unsigned refs; /* under the lock: the sandbox's and each process's */
	struct process *first;
	struct process_page *pages; /* under the lock: parts of output read ahead (process_output.c) */

	/* process_settle.c, under the lock */
	struct sandbox *sandbox; /* borrowed; of use until process_settle_stop */
	pthread_t settler;
	pthread_cond_t settle; /* something was asked, or it is to stop */
	bool settling, settle_stop;
	uint64_t settle_asked, settle_done;
	struct process_settle *settle_waiting;
};

/*
 * Caches of before a process's end must not be served after it was told. Dropping them can wait for the sandbox, which the
 * reader of a stream may not: a thread of the set does it, and wakes those who asked.
 */
struct process_settle {
	struct process_settle *next;
	uint64_t ticket; /* 0: not asked */
	void (*wake)(void *arg);
	void *arg;
};
void process_settle_ask(struct process_set *set, struct process_settle *s);
/* Is it done? True as well where it could not be asked. */
bool process_settled(struct process_set *set, struct process_settle *s);
/* No wake runs or will run when it returns. */
void process_settle_leave(struct process_set *set, struct process_settle *s);
/* The sandbox ends: the thread too. */
void process_settle_stop(struct process_set *set);

/* The set of a sandbox; NULL: out of memory, or the mount ends. */
struct process_set *process_set_of(struct sandbox *sb);

/* What the sandbox says of it, after noting an end seen for the first time. As process_get; -ENOENT (no fault) for one that is not there. */
int process_look(
	const struct ctl_ref *ref, struct call *c, struct process *p, struct process_info *out);
/* Of one that the sandbox does not have: was it started here, in a sandbox that is gone? */
bool process_lost(struct sandbox *sb, struct process *p);
/* Of one that is not in the sandbox and not lost: ESRCH, with what is to do or why its start failed. The lock is held. */
int process_not_started(struct call *c, const struct process *p);

/* Starts it with its settings and this command (NULL: the one it had). EBUSY while it runs. */
int process_begin(
	const struct ctl_ref *ref, struct call *c, struct process *p, const char *command, size_t n);
/* Changes its settings under the lock: EBUSY while it runs. edit returns 0 or a negative errno. */
int process_edit(const struct ctl_ref *ref, struct call *c, struct process *p,
	int (*edit)(struct process *p, void *arg), void *arg);

/* --- processes.c, for process_new.c --- */
/* New reference to the process of this id, which is made if need be; *made tells. NULL: out of memory. */
struct process *process_set_get(struct process_set *set, const char *id, bool *made);
void process_put(void *object);
/* Forgets it; with `ended` only if it was started here, and is not being started again at this moment. */
void process_unpin(struct process *p, bool ended);
void process_clear(struct process *p); /* its settings; the lock is held */
int process_busy(struct call *c, const struct process *p);
int process_bad_id(struct call *c, const char *id);

/* process_new.c */
int process_submit_new(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, struct buf *answer);

/* Rows of other files. */
#define PROCESS_VIEW(name)                                                                         \
	int process_##name##_size(const struct ctl_ref *ref, struct call *c, uint64_t *size);          \
	ssize_t process_##name##_pread(                                                                \
		const struct ctl_ref *ref, struct call *c, void *p, size_t n, uint64_t off);
PROCESS_VIEW(stdout) /* process_output.c */
PROCESS_VIEW(stderr)
PROCESS_VIEW(logs)
extern const struct ctl_dir process_dir; /* process_files.c: ID/ */
extern const struct ctl_stream_ops process_follow_stream, process_follow_json_stream,
	process_wait_stream; /* process_follow.c */
int process_call_wait_port(const struct ctl_ref *ref, struct call *c, const char *line, size_t n,
	struct buf *answer); /* process_waits.c */
int process_call_wait_log(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer);

/*
 * It has been started (id), could not be (err), or was removed (neither): its followers go on. The lock is held.
 * process_follow.c
 */
void process_follow_begin(struct process *p, const char *id, int err);
/* Drops what was read ahead of it (id NULL: all). process_output.c */
void process_pages_drop(struct process_set *set, const char *id);

#endif
