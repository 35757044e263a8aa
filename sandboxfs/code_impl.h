/* What code.c (what is kept of a run) and code_run.c (its stream) share. For no one else. */
#ifndef SBX_CODE_IMPL_H
#define SBX_CODE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "code.h"

struct code_display {
	uint64_t at; /* how much was printed before it */
	size_t first, count;
};

/*
 * What the stream has said. The thread of the HTTP loop, which all sandboxes share, only puts it away; who is in code_run_do takes it,
 * and alone writes what no comment gives to another.
 */
struct code_stream {
	struct buf line; /* the beginning of one; of another status than 200: the body */
	size_t scanned;
	int err;
	bool over; /* the run's own end has come */

	struct buf come;   /* covered by the run's lock: what has not been taken */
	bool paused;       /* likewise */
	atomic_bool more;  /* there is something in `come` */
	atomic_int status; /* 0: none yet */
	int end;           /* the loop's: how it ended, set before: */
	atomic_bool ended;
};

struct code_run {
	_Atomic unsigned references;
	struct sandbox *sb; /* borrowed; used in code_run_do alone */
	struct spool *printed, *said, *kept;
	uint64_t kept_max;
	struct code_stream stream;
	atomic_bool interrupt, interrupt_sent;
	char id[24];

	pthread_mutex_t lock; /* covers what follows; a leaf but for call_wake */
	struct call *worker;  /* who is in code_run_do */
	struct code_file **files;
	size_t files_count;
	struct code_display *displays;
	size_t displays_count;
	bool has_error;
	char *name, *value, *traceback;
	int64_t count;
	struct timespec begun, ended;
	bool settled;
	int err;
	struct fault fault;
};

/* One event of the stream, {"type",...}. 0, 1: the run is over, or an errno. */
int code_run_take(struct code_run *r, struct json_object *event);

#endif
