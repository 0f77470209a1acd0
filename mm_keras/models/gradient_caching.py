"""One training pass over a batch of patches, chunk by chunk.

Only one chunk is in the network at a time, whatever the size of the graph (gradient caching; Gao et
al., "Scaling deep contrastive learning batch size under memory limited setup", 2021).
"""


class ChunkedPass:
    """Embed chunk by chunk without keeping activations. TensorFlow only.

    Once the gradient of the loss with respect to all embeddings is known, each chunk passes through
    the network again, and its share of the weights' gradients is added up. Memory depends on the
    chunk, not on N. The second round costs the time of one more forward pass. The traced graph has
    the same size for any number of chunks.

    Each chunk is computed alike in both rounds. Before the second round, all variables of the
    backbone that training changes by itself (running statistics, states of random generators) are
    reset to their values before the first round. So dropout draws the same masks, and running
    statistics get one update per chunk. Batch norm in training mode normalizes each chunk by its
    own batch; with frozen statistics the gradients equal those of `trainable.WholePass`.

    Args:
        model: `MixAndMatch`, a callable from patches to embeddings with a `backbone`.
        patches: tensor [N, S, S, 3].
        chunk: int, number of patches that are in the network at a time.

    Raises:
        ValueError: if chunk does not divide N, or N is not known when the step is traced.
    """

    def __init__(self, model, patches, chunk: int):
        import tensorflow as tf  # the library imports without it

        patches = tf.convert_to_tensor(patches)
        num_nodes, *shape = patches.shape
        if num_nodes is None or num_nodes % chunk:
            raise ValueError(
                "chunk must divide the number of patches of a step, which must be known when the "
                f"step is traced. Received chunk={chunk} and {num_nodes} patches."
            )
        self.model = model
        self.chunks = tf.reshape(patches, [num_nodes // chunk, chunk, *shape])
        self.state = model.backbone.non_trainable_variables

    def outputs(self, tape):
        """Return the embeddings of the patches in training mode, float32 [N, D].

        `tape` watches them.
        """
        import tensorflow as tf

        self.state_before = [tf.identity(variable) for variable in self.state]
        with tape.stop_recording():
            stacked = tf.map_fn(
                lambda chunk: self.model(chunk, training=True),
                self.chunks,
                fn_output_signature=tf.float32,
                parallel_iterations=1,
            )
        self.embeddings = tf.reshape(stacked, [-1, stacked.shape[-1]])
        tape.watch(self.embeddings)
        return self.embeddings

    def gradients(self, tape, loss):
        """Return the gradients of a recorded loss, one for each trainable variable."""
        import tensorflow as tf

        inside = self.model.backbone.trainable_variables
        are_inside = {id(variable) for variable in inside}
        # The weights of the objective. The tape has recorded them for all nodes at once.
        outside = [v for v in self.model.trainable_variables if id(v) not in are_inside]
        by_embedding, *by_outside = tape.gradient(loss, [self.embeddings, *outside])
        by_embedding = tf.reshape(by_embedding, [*self.chunks.shape[:2], -1])
        for variable, value in zip(self.state, self.state_before, strict=True):
            variable.assign(value)

        def add_chunk(k, *sums):
            gradients = self._chunk_gradients(self.chunks[k], by_embedding[k])
            return k + 1, *(total + part for total, part in zip(sums, gradients, strict=True))

        num_chunks = self.chunks.shape[0]
        zeros = [tf.zeros(weight.shape, weight.dtype) for weight in inside]
        _, *by_inside = tf.while_loop(
            lambda k, *_: k < num_chunks,
            add_chunk,
            [tf.constant(0), *zeros],
            parallel_iterations=1,
        )
        found = zip([*inside, *outside], [*by_inside, *by_outside], strict=True)
        gradients = {id(variable): gradient for variable, gradient in found}
        return [gradients[id(variable)] for variable in self.model.trainable_variables]

    def _chunk_gradients(self, patches, by_embedding):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            embeddings = self.model(patches, training=True)
        weights = self.model.backbone.trainable_variables
        return tape.gradient(embeddings, weights, output_gradients=by_embedding)
