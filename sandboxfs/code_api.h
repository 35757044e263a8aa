/*
 * The contexts of the code interpreter, over the wire: requests and their answers as structs. Owns nothing; thread-safe. Runs are
 * code.h's, what is remembered of contexts is the control tree's.
 */
#ifndef SBX_CODE_API_H
#define SBX_CODE_API_H

#include <stdbool.h>
#include <stdint.h>

#include "call.h"
#include "sandbox.h"

struct json_object;

/* "python", "javascript" or "typescript" of any of the words for it; NULL: no language. */
const char *code_api_language(const char *word);
/* May it be given to a new context, or shown as a name? [A-Za-z0-9._-]{1,128}, no leading dot, not new or help. */
bool code_api_id_ok(const char *id);

struct code_api_spec {
	const char *id; /* NULL: the server's choice */
	const char *language;
	const char *cwd;         /* NULL: the server's */
	struct json_object *env; /* borrowed; NULL: none */
};
/* 0 and *id new: as the server calls it (where it takes no names another than asked for). -EEXIST without a fault; -ENOTSUP: it lacks the language. */
int code_api_create(
	struct sandbox *sb, struct call *c, const struct code_api_spec *spec, char **id);

struct code_api_info {
	const char *id, *language; /* borrowed; language may be a word of the server's */
};
/* Those whose ids can be names; cb returns false to stop. */
int code_api_list(struct sandbox *sb, struct call *c,
	bool (*cb)(const struct code_api_info *info, void *arg), void *arg);
/* -ENOENT without a fault: there is no such context. */
int code_api_delete(struct sandbox *sb, struct call *c, const char *id);
int code_api_restart(struct sandbox *sb, struct call *c, const char *id);
/* Sets each name; waits for its turn. */
int code_api_variables(
	struct sandbox *sb, struct call *c, const char *id, struct json_object *variables);
/* ^C for what runs, or for that run alone. Nothing to end is 0. */
int code_api_interrupt(struct sandbox *sb, struct call *c, const char *id, const char *run_id);

#endif
