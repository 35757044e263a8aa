/*
 * The processes of a sandbox, over the wire: requests and their answers as structs. The client of the routes of frames.h and of
 * process/list. Owns nothing; thread-safe. What is remembered of processes between requests is the control tree's.
 */
#ifndef SBX_PROCESS_H
#define SBX_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "call.h"
#include "sandbox.h"
#include "spool.h"

struct json_object;

struct process_spec {
	const char *command;
	size_t size;
	const char *cwd;         /* NULL: /workspace, or where the session is */
	struct json_object *env; /* borrowed: an object of strings; NULL: none */
	int64_t timeout_ms;      /* <=0: none */
	const char *session; /* NULL: of none. What is listed runs beside its shell, the rest in it */
};

/* [A-Za-z0-9._-]{1,128}, no leading dot, not a name that its directory has already? */
bool process_id_ok(const char *id);
/* Sets KEY=VALUE in env, an object of strings: 0, -EINVAL (no such name), -ENOMEM. */
int process_env_set(struct json_object *env, const char *pair);
/* The body that starts command id (frames.h), with its stdin. 0 or -ENOMEM. */
int process_body(const char *id, const struct process_spec *spec, bool listed, const void *input,
	size_t input_size, struct buf *body);

/* Starts it and returns when it runs. Barriers are the caller's. 0 or an errno with a fault. */
int process_start(
	struct sandbox *sb, struct call *c, const char *id, const struct process_spec *spec);

/* Says what a start that failed with err could not find. */
void process_explain(struct call *c, int err, const char *cwd);

struct process_info {
	char *command, *cwd;
	struct json_object *env; /* NULL: none */
	int64_t timeout_ms;      /* 0: none */
	int64_t pid;             /* 0: not known */
	char status[16];         /* the server's word */
	bool running;
	char started[40], ended[40]; /* ISO 8601 as told; empty: not known */
	bool has_exit;
	int exit_code;
	bool timed_out;
	uint64_t size[3], first[3]; /* by enum spool_view */
};
void process_info_release(struct process_info *i);
#define AUTO_PROCESS_INFO __attribute__((cleanup(process_info_release))) struct process_info

/* 0 and *out filled (process_info_release), -ENOENT (without a fault), or the errno of why not. */
int process_get(struct sandbox *sb, struct call *c, const char *id, struct process_info *out);
/* Ids of the listed ones; those that cannot be names here are left out. */
int process_list(
	struct sandbox *sb, struct call *c, bool (*cb)(const char *id, void *arg), void *arg);
/* signal: a name or number; NULL: TERM, then KILL after 2 s. All its processes get it. One that has ended: 0. */
int process_signal(struct sandbox *sb, struct call *c, const char *id, const char *signal);
/* Waits for its end, at most wait_ms: 0 (also when it has ended, or is gone), -ETIMEDOUT, -EINTR. */
int process_wait(struct sandbox *sb, struct call *c, const char *id, int64_t wait_ms);
/* Forgets the record of an ended one: 0 (also when there is none), -EBUSY while it runs. */
int process_forget(struct sandbox *sb, struct call *c, const char *id);
/* Appends up to n bytes of a view at off to out. */
int process_read(struct sandbox *sb, struct call *c, const char *id, enum spool_view view,
	uint64_t off, size_t n, struct buf *out);

#endif
