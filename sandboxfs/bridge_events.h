/*
 * What a bridge answers to a command: server-sent events, of which stdout is base64 and the end is JSON. Pure functions: the text
 * comes from a server that is not trusted.
 */
#ifndef SBX_BRIDGE_EVENTS_H
#define SBX_BRIDGE_EVENTS_H

#include <stdbool.h>

#include "buf.h"

struct bridge_answer {
	struct buf *out; /* borrowed; gets stdout */
	bool ended;      /* status is the exit code */
	int status;
	char *error; /* new: why it was not run, fit for a terminal; NULL: not said */
};

/* Takes the whole text, which it changes. 0, -EPROTO or -ENOMEM; free a->error in any case. */
int bridge_events_take(struct bridge_answer *a, char *text);

#endif
