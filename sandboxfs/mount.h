/*
 * Mount points: what is there, what the kernel is told, and taking away. Owns nothing.
 */
#ifndef SBX_MOUNT_H
#define SBX_MOUNT_H

#include <stdbool.h>

#include "front.h"
#include "options.h"

/*
 * The mount point is an existing directory, nothing of ours is mounted there (a stale one is taken away), and nobody else is at it: as
 * long as *lock is open. Fills o->mountpoint. Prints its sentence.
 */
int mount_prepare(struct options *o, int *lock);
/* Makes the mount. Prints its sentence. */
int mount_make(struct front *f, const struct options *o);
/* Detaches it, as umount does; busy ones lazily. 0 or a negative errno. */
int mount_detach(const char *mountpoint, bool lazy);
/*
 * Has the mount no program any more? Asks it, and so waits for one that lives. A request that was on its way when the program died
 * fails with ECONNABORTED, a later one with ENOTCONN.
 */
bool mount_is_dead(const char *mountpoint);
/*
 * -o auto_unmount: starts a process that takes the mount away when this one has died, before there is a thread. 0 and *lifeline, on
 * which it is told of the mount (mount_watch_begin) and which stays open to the end; or a negative errno.
 */
int mount_watch(const char *mountpoint, int *lifeline);
void mount_watch_begin(int lifeline);
/* sandboxfs -u: waits until all is sent, unmounts, waits for the program's end. The exit status; prints what is left. */
int mount_end(const struct options *o);

#endif
