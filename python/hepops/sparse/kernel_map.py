from ._plain import Pairs, build, regroup


class KernelMap:
    def __init__(self, forward, volume, mirrored, source_schedule, backward=None, flip=False):
        self.forward, self.volume, self.mirrored, self.source_schedule, self._backward = (
            forward,
            volume,
            mirrored,
            source_schedule,
            backward,
        )
        self.flip = flip

    @property
    def num_in(self):
        return self.source_schedule.shape[0]

    @property
    def num_out(self):
        return self.forward.schedule.shape[0]

    @property
    def backward(self):
        if self.mirrored:
            return self.forward
        if self._backward is None:
            self._backward = regroup(self.forward, self.source_schedule)
        return self._backward

    def transposed(self):
        if self.mirrored:
            return KernelMap(self.forward, self.volume, True, self.source_schedule, flip=not self.flip)
        return KernelMap(self.backward, self.volume, False, self.forward.schedule, self.forward, self.flip)
