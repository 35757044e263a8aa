/*
 * events: what its row needs. See events.c.
 */
#ifndef CTL_EVENTS_H
#define CTL_EVENTS_H

#include "ctl.h"

extern const struct ctl_stream_ops events_stream_ops; /* to read alone: all that changes */
extern const struct ctl_talk_ops events_talk_ops;     /* for both: the first line says what */

#endif
