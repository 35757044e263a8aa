/*
 * One batch of the file protocol: calls are added, sent together, and their results taken in the same order.
 * Belongs to one thread. See fileop.h for what follows each code.
 */
#ifndef SBX_BATCH_H
#define SBX_BATCH_H

#include "buf.h"
#include "call.h"
#include "fileop.h"
#include "sandbox.h"

/* What a client of the protocol is: a name, numbers of batches, numbers of handles. Thread-safe. */
struct batch_client;
int batch_client_new(struct sandbox *sb, struct batch_client **out);
void batch_client_free(struct batch_client *bc);
/* Is the link so slow that it is worth something not to ask? By the last answers. */
bool batch_client_slow(struct batch_client *bc);
uint64_t batch_client_handle(struct batch_client *bc); /* a number never used before */

struct batch {
	/*
	 * NULL, or where its number is kept while its end is not known (0: none is): a batch that failed so is sent again, the very same, with that
	 * number, and the server does it once. Set after batch_init; give it up with batch_unpin.
	 */
	uint64_t *pin;
	struct batch_client *client;
	struct call *call;
	struct buf request, reply;
	size_t open_call; /* where the call that is being written began; 0: none */
	uint32_t count;
	enum fileop_code code; /* of that call */
	bool mutates;          /* what it does twice is not what it does once */
	bool changes;          /* something of the sandbox's files */
	struct reader results;
};

void batch_init(struct batch *b, struct batch_client *bc, struct call *c);
void batch_release(struct batch *b);
#define AUTO_BATCH __attribute__((cleanup(batch_release))) struct batch

/* Begins a call; its body is written into what is returned. */
struct buf *batch_add(struct batch *b, enum fileop_code code, unsigned opflags);
/* Sends all: 0 or why nothing came back. */
int batch_send(struct batch *b);
/* The result of the next call: 0 or its errno; body reads the rest. */
int batch_next(struct batch *b, struct reader *body);

/* The batch of that number will not be sent again. Harmless if there is none. */
void batch_unpin(struct batch_client *bc, uint64_t *pin);

#endif
