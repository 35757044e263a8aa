/*
 * An op: one request of the kernel, as the nodes see it. Hides every FUSE type.
 *
 * An op is answered exactly once. A handler either returns a value and the front answers
 * with it, or answers by itself with op_reply_* and returns OP_REPLIED, or parks the op (holding no thread) and
 * returns OP_REPLIED; whoever unparks it then owes the answer. After the answer the op is gone.
 */
#ifndef SBX_OP_H
#define SBX_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "call.h"

struct op;

enum {
	OP_REPLIED = 1 << 30
}; /* what a handler returns when the answer is given or owed by another */

struct call *op_call(struct op *op); /* borrowed: cancel token and fault of this request */
pid_t op_pid(struct op *op); /* thread id of the caller; 0 if it is in another pid namespace */

void op_reply_err(struct op *op, int err); /* err: 0 or a negative errno */
void op_reply_data(struct op *op, const void *p, size_t n);
void op_reply_write(struct op *op, size_t n);

/*
 * Parks the op. When the caller is interrupted by a signal that cancels, or the mount ends, on_cancel(op, arg) is
 * called once, from another thread, with the op unparked: it must answer (-EINTR). If the op was cancelled
 * already, op_park calls nothing and returns -EINTR: the caller still owns the op.
 * The order of locks: on_cancel may take the locks of the room that parked; op_park and op_unpark may be called with these held.
 */
int op_park(struct op *op, void (*on_cancel)(struct op *op, void *arg), void *arg);
/* Takes a parked op back in order to answer it. False: on_cancel has been or is being called, hands off. */
bool op_unpark(struct op *op);

/* poll(2): the kernel's handle, to be notified once. */
struct op_poll;
void op_poll_notify(struct op_poll *
		p); /* tells the kernel to ask again; may be called from any thread, holding locks of the caller's room */
void op_poll_free(struct op_poll *p);

#endif
