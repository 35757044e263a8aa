/*
 * A conversation with the runs of a sandbox: what exec and exec.json have in common. They differ in how a request
 * is parsed and how a run is told; the order of runs, their threads and their ends are here.
 */
#ifndef CTL_CONVERSATION_H
#define CTL_CONVERSATION_H

#include "ctl.h"
#include "run.h"
#include "runs.h"

/* A request, parsed. */
struct conversation_request {
	struct buf command;
	char *cwd;  /* NULL: /workspace, or where the session is */
	char **env; /* NULL-terminated; NULL: none */
	struct buf input;
	int64_t timeout_ms;
	char *session; /* NULL: that of the file's directory, if it has one */
};

struct conversation_format {
	const char *name;  /* of the file, for messages */
	bool tells_number; /* before a line, a read gives the number of the run it will start */
	bool json;         /* its runs are what exec.json shows */
	/* 0 and *out filled, 1: nothing to be done, or an errno with a fault. line: of a conversation. */
	int (*parse)(
		struct call *c, const char *text, size_t n, bool line, struct conversation_request *out);
	/* One reader's place in a run (borrowed). NULL: out of memory. */
	void *(*reader_new)(struct run *r);
	/*
	 * >0 bytes; 0 all is told; -EAGAIN nothing yet; -ENODATA: *lost bytes are no longer kept, the next call goes on behind them;
	 * another error is the read's. settled: the run's end may be told.
	 */
	ssize_t (*reader_next)(void *reader, bool settled, void *p, size_t n, uint64_t *lost);
	void (*reader_free)(void *reader);
};

/* An opening to converse: *state new, for the functions that follow, which are as ctl_talk_ops has them. */
int conversation_open(const struct ctl_ref *ref, struct ctl_talk *t,
	const struct conversation_format *format, void **state);
int conversation_line(void *state, struct call *c, const char *text, size_t n);
int conversation_first(void *state, struct call *c);
int conversation_document(void *state, struct call *c, const char *text, size_t n);
ssize_t conversation_next(void *state, void *p, size_t n);
void conversation_close(void *state);
/* All of ctl_talk_ops but open, where a file calls conversation_open with its format. */
#define CONVERSATION_TALK                                                                          \
	.line = conversation_line, .next = conversation_next, .first = conversation_first,             \
	.document = conversation_document, .close = conversation_close

/* An opening to read alone: the newest run of that format, what is there so far, never waits. As ctl_stream_ops has them. */
int conversation_view_open(
	const struct ctl_ref *ref, const struct conversation_format *format, void **cursor);
ssize_t conversation_view_next(void *view, void *p, size_t n);
void conversation_view_close(void *view);
/* All of ctl_stream_ops but open, likewise. */
#define CONVERSATION_VIEW .next = conversation_view_next, .close = conversation_view_close

#endif
