/* The set of a sandbox's contexts: what code_contexts.c (who owns it) and code_dir.c (code/) share. For no one else. */
#ifndef CTL_CODE_SET_H
#define CTL_CODE_SET_H

#include <pthread.h>

#include "code_room.h"

/* Those that are always there, one a language. */
enum { CODE_STANDARD = 3 };
extern const char *const code_standard[CODE_STANDARD];
bool code_is_standard(const char *name);

struct code_set;
struct code_context {
	struct code_set *set; /* a reference */
	char *name;
	/* under the set's lock */
	unsigned refs;
	struct code_context *next;
	bool pinned;   /* the set has a reference: it is there */
	char *id;      /* as the server calls it; NULL: it has not begun */
	uint64_t seen; /* when it was last there */
	const char *language;
	int64_t timeout_ms;
	struct json_object *variables; /* what was set here; NULL: nothing */
	struct code_run *last;
};

struct code_set {
	pthread_mutex_t lock;
	unsigned refs;
	bool closing;
	uint64_t
		clock; /* counts what was seen: an answer is older than what was seen since its request */
	struct code_context *first;
};

/* Borrowed, as long as the sandbox; NULL: out of memory. */
struct code_set *code_set_of(struct sandbox *sb);
/* New reference, or NULL: it is not known here. */
struct code_context *code_set_known(struct code_set *set, const char *name);
/* New reference to the context of this name, which is put in if need be. id NULL: as a draft. 0, -ENOMEM or -ESTALE. */
int code_set_get(struct code_set *set, const char *name, const char *id, const char *language,
	struct code_context **out);
/* Takes it out of the set, unless it was seen since `then`. False: it was. The caller holds a reference. */
bool code_context_forget(struct code_context *k, uint64_t then);
/* Each is a name that every language takes, or -EINVAL with a fault. */
int code_check_variables(struct call *c, struct json_object *variables);

#endif
