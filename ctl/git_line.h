/*
 * A clone as it is asked for: the line of `git`, the script that does it in the sandbox, and what git's words mean.
 * No state, no requests.
 *
 * A name and password in an http URL go to git through its stdin and a credential helper that serves that server alone: they are
 * in no command line, in no message, and not in the clone's configuration either.
 */
#ifndef CTL_GIT_LINE_H
#define CTL_GIT_LINE_H

#include "buf.h"
#include "call.h"

struct git_request {
	char *url;    /* without name and password, where these go another way */
	char *server; /* scheme://host, for the credentials; NULL: none were given */
	char *user, *password;
	char *branch;  /* NULL: the remote's */
	char *dir;     /* absolute, in the sandbox */
	int64_t depth; /* 0: all */
	int64_t timeout_ms;
};

/* `URL [branch=B] [dir=D] [depth=N] [timeout=DUR]`: 0 and *out filled, or an errno with a fault. */
int git_request_parse(struct call *c, const char *line, size_t n, struct git_request *out);
void git_request_release(struct git_request *q);

/* Where it is cloned to before it takes its place: beside it, so that a clone is there whole or not at all. */
int git_request_stage(const struct git_request *q, const char *id, struct buf *path);
/* The script, and its stdin. Everything is said on stderr; `dir D` is its last line. 0 or -ENOMEM. */
int git_request_script(
	const struct git_request *q, const char *stage, struct buf *script, struct buf *input);

/* What went wrong, from what git said (NUL-terminated) and its exit code: a positive errno, and a line of text in *why. */
int git_errno(const char *said, int code, struct buf *why);

#endif
