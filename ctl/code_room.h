/*
 * code/ and the files of its contexts: what code_dir.c (which there are), code_contexts.c (what is known of each), code_run_file.c
 * (run) and code_files.c (the rest) share.
 *
 * The set's lock covers all fields of a context but names; it is not held over a request. Lock order: the set's is a leaf.
 */
#ifndef CTL_CODE_ROOM_H
#define CTL_CODE_ROOM_H

#include "code.h"
#include "ctl.h"

struct json_object;
struct code_context;

extern const struct ctl_dir ctl_code_dir;         /* code_dir.c */
extern const struct ctl_dir ctl_code_context_dir; /* code_files.c */
/* Interrupts what was started from here. */
void ctl_code_cancel(struct sandbox *sb);

/* --- code_contexts.c --- */
struct code_context *code_context_get(struct code_context *k);
void code_context_put(struct code_context *k);
const char *code_context_name(const struct code_context *k); /* constant */
const char *code_context_language(struct code_context *k);   /* constant text */
/* -EBUSY with a fault: it has begun. */
int code_context_set_language(struct code_context *k, struct call *c, const char *word);
int64_t code_context_timeout(struct code_context *k);
void code_context_set_timeout(struct code_context *k, int64_t ms);
/* As the server calls it, new; NULL: it has not begun, or there is no memory for it (*begun tells). */
char *code_context_id(struct code_context *k, bool *begun);
/* It is in the sandbox, with the variables that were set before: makes it if need be. */
int code_context_begin(struct code_context *k, struct sandbox *sb, struct call *c);
/*
 * The sandbox has no such context. 0: it can begin anew (one of the three that are always there); else -ESTALE with a fault, and its
 * name is free.
 */
int code_context_lost(struct code_context *k, struct call *c);
/* Sets variables; where it has not begun, when it does. */
int code_context_set_variables(
	struct code_context *k, struct sandbox *sb, struct call *c, struct json_object *variables);
/* One JSON object. */
int code_context_put_variables(struct code_context *k, struct buf *out);
/* -ENOENT without a fault. */
int code_context_restart(struct code_context *k, struct sandbox *sb, struct call *c);

/* The newest run that was started here; new reference or NULL. */
struct code_run *code_context_last(struct code_context *k);
void code_context_set_last(struct code_context *k, struct code_run *r);

/* --- code_run_file.c --- */
int code_begin(const struct ctl_ref *ref, struct call *c);
extern const struct ctl_talk_ops code_talk_ops;
extern const struct ctl_stream_ops code_stream_ops;

#endif
